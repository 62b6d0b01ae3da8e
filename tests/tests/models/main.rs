//! The small hard protocols as models, every reachable state of which is visited (`stateright`). Where
//! the product decides with code of its own, the model decides with that code.
//!
//! Each property is proved able to fail: with a planted bug the checker must find a counterexample to it.
//! `RINGBACK_MODELS=long` checks larger bounds (`cargo xtask models`).

// Test code: a broken expectation should panic, and figures are printed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod configuration;
mod generations;
mod replay;
mod tracker;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker as _, Model};

/// Whether the larger bounds are to be checked.
fn long() -> bool {
    std::env::var("RINGBACK_MODELS").is_ok_and(|bounds| bounds == "long")
}

/// Visits every reachable state: no property that must always hold is violated, and whatever must be
/// possible was seen. Prints how many states there are.
fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Hash + Send + Sync + Clone + PartialEq,
    M::Action: Debug + Clone + PartialEq,
{
    let failed = stateright::HasDiscoveries::AnyFailures;
    let checker = model
        .checker()
        .finish_when(failed)
        .threads(2)
        .spawn_bfs()
        .join();
    checker.assert_properties();
    assert!(checker.is_done(), "not every state of {name} was visited");
    let states = checker.unique_state_count();
    println!("figure model.{name}.states {states} count");
}

/// A planted bug is found: this property has a counterexample.
fn breaks<M>(model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Hash + Send + Sync + Clone + PartialEq,
    M::Action: Debug + Clone + PartialEq,
{
    let finished = stateright::HasDiscoveries::AllOf([property].into());
    let checker = model.checker().finish_when(finished).spawn_bfs().join();
    checker.assert_any_discovery(property);
}
