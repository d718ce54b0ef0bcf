//! Questions to servers from outside: what a client would see of them.

pub mod health;
