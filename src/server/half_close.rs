//! Has a peer that sends no more hung up, or does it wait for its answer?
//!
//! Both look the same: a FIN. A peer that has closed its socket says so, with a reset, when something is written to it,
//! and not before. So a byte is written ahead that changes nothing for one that waits. Where the response has not begun,
//! that is its first byte, which is the same for all, once it has been waited for for a while. Where it comes in chunks, it
//! is a zero in front of the length of the next chunk (RFC 9112 §7.1), at once: what is written to a peer that has left
//! counts as heard.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// What every response of HTTP/1 begins with (RFC 9112 §4).
pub(super) const AHEAD: &[u8] = b"H";

/// What the length of every chunk may begin with.
pub(super) const ZERO: &[u8] = b"0";

/// How long a response is waited for before its first byte is written. Most come sooner, and leave in one piece.
const BEFORE: Duration = Duration::from_millis(100);

/// How long it is from one look to the next: first, and at most.
const PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// When to look whether the peer is there.
#[derive(Debug, Default)]
pub(super) struct HalfClose {
    /// The exchange that goes on, by its number.
    exchange: u64,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The exchange during which something was written, by its number.
    written: u64,
    /// The exchange after which hyper was woken, by its number.
    woken: u64,
}

impl HalfClose {
    /// Waits until it is time to look, while this exchange goes on.
    pub(super) fn poll_look(&mut self, exchange: u64, context: &mut Context<'_>) -> Poll<()> {
        if self.exchange != exchange {
            *self = Self { exchange, pause: PAUSE, timer: None, ..*self };
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(BEFORE)));
        std::task::ready!(timer.as_mut().poll(context));
        timer.as_mut().reset(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Poll::Ready(())
    }

    /// Something was written during this exchange: a peer that has left will say so, soon. Whoever writes does not wait for
    /// the timer, so hyper is woken to read once more, which does.
    pub(super) fn wrote(&mut self, exchange: u64, context: &Context<'_>) {
        if std::mem::replace(&mut self.written, exchange) != exchange {
            self.exchange = exchange;
            self.pause = PAUSE;
            self.timer = Some(Box::pin(sleep(PAUSE)));
            context.waker().wake_by_ref();
        }
    }

    /// Whether something was.
    pub(super) fn has_written(&self, exchange: u64) -> bool {
        self.written == exchange
    }

    /// This exchange has ended: hyper is to look for the next one, which it does not by itself.
    pub(super) fn end(&mut self, exchange: u64, context: &Context<'_>) {
        if std::mem::replace(&mut self.woken, exchange) != exchange {
            context.waker().wake_by_ref();
        }
    }
}
