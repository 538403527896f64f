//! What is done with a reply that has come, or never will. Must not know the request side (`proxy`).

pub mod decode;
pub mod deliver;
pub mod fills;
