//! POST of the endpoint: of which era its message is, and so who answers it. Both eras are served at the same time.

use std::sync::Arc;

use hyper::Response;
use hyper::body::Incoming;

use super::body::{Bodies, parse};
use super::guard;
use super::head::{self, Accepts, Head, Kept};
use super::legacy::{Legacy, Target};
use super::modern::{self, Addressed, Modern};
use super::problem::Problem;
use super::response::{Body, Rejection};
use crate::session::{Posted, Session};

/// Those who answer POSTs.
#[derive(Debug)]
pub(super) struct Posts {
    pub(super) bodies: Arc<Bodies>,
    pub(super) legacy: Legacy,
    pub(super) modern: Modern,
}

/// A POST whose head has been read, and whose body has not.
pub(super) struct Posting {
    head: Kept,
    accepts: Accepts,
    /// Where it goes as a message of the session era.
    target: Target,
    /// Where it goes as one of 2026-07-28, if its head allows that.
    addressed: Option<Box<Addressed>>,
}

impl Posts {
    /// Reads the head of a POST.
    ///
    /// # Errors
    /// What can be refused without the body: a client that has lost its session should not have to send it first.
    pub(super) fn posting(&self, head: &Head<'_>) -> Result<Posting, Problem> {
        let accepts = head::accepts(head.headers);
        if !accepts.json && !accepts.stream {
            return Err(Problem::NotAcceptable);
        }
        guard::check_body_head(head.headers, self.bodies.max())?;
        let kept = head.keep();
        let may_be_modern = kept.asked.may_be_modern();
        let target = match self.legacy.target(head) {
            // 2026-07-28 ignores the header. An id that was one of ours is a client's that has lost its session.
            Err(lost @ (Problem::SessionNotFound | Problem::SessionHeader(_))) if may_be_modern => {
                Target::Lost(lost)
            }
            target => target?,
        };
        // In a live session every message is the session's, whatever it says of itself.
        let is_addressed = may_be_modern && !matches!(target, Target::Session(_));
        let addressed = is_addressed.then(|| Box::new(self.modern.address(head)));
        Ok(Posting { head: kept, accepts, target, addressed })
    }

    pub(super) async fn post(&self, posting: Posting, body: Incoming) -> Result<Response<Body>, Rejection> {
        let Posting { head, accepts, target, addressed } = posting;
        let (session, revision) = match &addressed {
            Some(addressed) => (addressed.session(), head.revision()),
            None => (target.session(), target.session().and_then(Session::revision)),
        };
        let read = self.bodies.read(&head, body, session).await;
        let (body, permit) = match &addressed {
            Some(_) => read.map_err(modern::without_session)?,
            None => read?,
        };
        let message = match (parse(body, revision)?, &target) {
            (
                Posted::One(message),
                Target::Key(..) | Target::KeyOrNew(..) | Target::None(_) | Target::Lost(_),
            ) => message,
            (posted, _) => return self.legacy.post(&head, target, posted, permit, accepts).await,
        };
        if modern::is_modern(&head, &message) {
            let lost = if let Target::Lost(lost) = target { Some(lost) } else { None };
            return self.modern.post(&head, addressed, lost, message, permit, accepts).await;
        }
        self.legacy.post(&head, target, Posted::One(message), permit, accepts).await
    }
}
