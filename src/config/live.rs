//! A value that may be replaced while the proxy runs: for those who look at it now and then. What is looked at for each request
//! goes to the workers in a snapshot of their own (`proxy::Policy`).

use std::sync::{Arc, PoisonError, RwLock};

/// A handle to the value that holds now.
#[derive(Clone, Debug, Default)]
pub struct Live<T>(Arc<RwLock<T>>);

impl<T: Clone> Live<T> {
    /// With a value to begin with.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    /// The value that holds now.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Holds from now on, for all handles.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}
