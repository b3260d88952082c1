//! Guard.
fn main() {}
