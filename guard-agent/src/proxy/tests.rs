//! The path as a whole, on loopback, with fakes for the kernel, for policy and for the provider.

mod calls;
mod connections;
mod fakes;
mod sockets;
mod streams;
