//! Keeper and worker: who may do what, and what each other's death does.

#[path = "split/cost.rs"]
mod cost;
#[path = "split/death.rs"]
mod death;
#[path = "split/privilege.rs"]
mod privilege;
#[path = "split/proof.rs"]
mod proof;
#[path = "split/restart.rs"]
mod restart;
