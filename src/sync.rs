//! Locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. One that a panic has poisoned is taken as it is: a panic ends the program (`panic = "abort"`), so
/// there is nothing behind the poison to guard against.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
