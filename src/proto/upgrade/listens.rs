use crate::proto::ids::{ClientId, StreamId};
use bytes::Bytes;
#[derive(Clone, Copy, Debug, Default)]
pub struct Offered {
    pub tools: bool,
    pub prompts: bool,
    pub resources: bool,
    pub subscribe: bool,
}
pub struct Added {
    pub subscribe: Vec<Box<str>>,
    pub events: Vec<(StreamId, Bytes)>,
}
#[derive(Debug, Default)]
pub struct Listens;
pub enum NotAdded {
    Invalid(&'static str),
    Full,
}
impl Listens {
    pub fn add(&mut self, _: StreamId, _: ClientId, _: &str, _: Offered) -> Result<Added, NotAdded> {
        Err(NotAdded::Full)
    }
    pub fn subscribed(&mut self, _: &str, _: bool) -> Vec<(StreamId, Bytes)> {
        Vec::new()
    }
    pub fn remove(&mut self, _: StreamId) -> Option<Vec<Box<str>>> {
        None
    }
    pub fn changed(&mut self, _: &str, _: Option<&str>, _: &str) -> Vec<(StreamId, Bytes)> {
        Vec::new()
    }
    pub fn ends(&mut self) -> Vec<(StreamId, Bytes)> {
        Vec::new()
    }
    pub fn is_empty(&self) -> bool {
        true
    }
}
