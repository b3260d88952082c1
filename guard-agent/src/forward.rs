//! stub
pub mod dial;
