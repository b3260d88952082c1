//! The kernel/user contract.
#![no_std]
