//! A value that may be replaced while Shortstop runs, for code that reads it now and then. Values that are read for each request
//! reach the workers in a snapshot (`worker_state::policy::Policy`).

use std::sync::{Arc, PoisonError, RwLock};

/// A handle to the current value.
#[derive(Clone, Debug, Default)]
pub struct Live<T>(Arc<RwLock<T>>);

impl<T: Clone> Live<T> {
    /// With an initial value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    /// The current value.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value, for all handles.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}
