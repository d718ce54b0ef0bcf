//! What the programs of this package share: processes, an HTTP client, messages.

#![allow(clippy::disallowed_methods, reason = "these rules are for the bridge")]

pub mod http;
pub mod message;
pub mod programs;

use std::error::Error;

pub type Failure = Box<dyn Error + Send + Sync>;
pub type Outcome<T> = Result<T, Failure>;
