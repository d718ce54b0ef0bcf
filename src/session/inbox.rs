//! POSTs that have not been forwarded yet: the child does not read, or has not answered `initialize`.
//!
//! How many wait is bounded by the memory that their bodies may take together, see
//! [`BodyBudget`](super::BodyBudget).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::stream::Feed;
use super::{BodyPermit, Posted};
use crate::proto::front::{Mirrored, Takes};
use crate::proto::message::Message;

/// How many places for posts an empty queue keeps.
const KEEP: usize = 64;

/// One POST and where its answer goes.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) posted: Posted,
    /// Given back when the post has been forwarded.
    pub(super) permit: Option<BodyPermit>,
    pub(super) takes: Takes,
    pub(super) feed: Feed,
    /// When its head was read.
    pub(super) arrived: Instant,
    /// What else that says of a message of 2026-07-28.
    pub(super) mirrored: Option<Box<Mirrored>>,
}

impl Post {
    /// Takes the requests out where their client is gone: a request that was not forwarded has not happened.
    /// Notifications and responses need no client. Returns how many requests were taken out.
    pub(super) fn drop_requests_of_gone_client(&mut self) -> usize {
        if self.feed.is_live() {
            return 0;
        }
        let messages = match &mut self.posted {
            Posted::One(message) if message.request().is_none() => return 0,
            Posted::One(_) => {
                self.posted = Posted::Batch(Vec::new());
                return 1;
            }
            Posted::Batch(messages) => messages,
        };
        let all = messages.len();
        messages.retain(|message| message.request().is_none());
        all - messages.len()
    }

    pub(super) fn messages(&self) -> &[Message] {
        match &self.posted {
            Posted::One(message) => std::slice::from_ref(message),
            Posted::Batch(messages) => messages,
        }
    }
}

/// The queue of POSTs, oldest first.
#[derive(Debug)]
pub(super) struct Inbox {
    posts: VecDeque<Post>,
    /// How long a request may take, from the moment its head was read.
    timeout: Duration,
    /// No deadline passes before this; `None`: no post has one.
    next_deadline: Option<Instant>,
}

impl Inbox {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { posts: VecDeque::new(), timeout, next_deadline: None }
    }

    pub(super) fn len(&self) -> usize {
        self.posts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    pub(super) fn push(&mut self, post: Post) {
        let deadline = post.arrived.checked_add(self.timeout);
        self.next_deadline = [self.next_deadline, deadline].into_iter().flatten().min();
        self.posts.push_back(post);
    }

    /// Takes the oldest post out.
    pub(super) fn pop(&mut self) -> Option<Post> {
        let post = self.posts.pop_front();
        self.settle();
        post
    }

    /// An empty queue has no deadline, and keeps no memory of the time when it was long.
    fn settle(&mut self) {
        if self.posts.is_empty() {
            self.next_deadline = None;
            if self.posts.capacity() > KEEP {
                self.posts = VecDeque::new();
            }
        }
    }

    /// When [`take_late`](Self::take_late) is due. It may find nothing then.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// Whether the deadline of this post has passed.
    pub(super) fn is_late(&self, post: &Post, now: Instant) -> bool {
        post.arrived.checked_add(self.timeout).is_some_and(|deadline| deadline <= now)
    }

    /// Takes out the posts whose deadline has passed.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Post> {
        if self.next_deadline.is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        let (late, posts) =
            std::mem::take(&mut self.posts).into_iter().partition(|post| self.is_late(post, now));
        self.posts = posts;
        let deadlines = self.posts.iter().filter_map(|post| post.arrived.checked_add(self.timeout));
        self.next_deadline = deadlines.min();
        self.settle();
        Vec::from(late)
    }

    /// Takes out the requests whose clients are gone. Returns how many there were.
    pub(super) fn drop_gone(&mut self) -> usize {
        let mut dropped = 0;
        self.posts.retain_mut(|post| {
            dropped += post.drop_requests_of_gone_client();
            !post.messages().is_empty()
        });
        self.settle();
        dropped
    }
}
