#[derive(Debug, Default)]
pub struct ToolParams;
impl ToolParams {
    pub fn learn(&mut self, _: &str) {}
    pub fn next_cursor(_: &str) -> Option<String> {
        None
    }
    pub fn clear(&mut self) {}
    pub fn check(&self, _: &str, _: Option<&str>, _: &[(Box<str>, Box<[u8]>)]) -> Result<(), &'static str> {
        Ok(())
    }
}
