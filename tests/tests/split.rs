//! Keeper and worker: who may do what, and what each other's death does.

#[path = "split/death.rs"]
mod death;
#[path = "split/privilege.rs"]
mod privilege;
#[path = "split/proof.rs"]
mod proof;
