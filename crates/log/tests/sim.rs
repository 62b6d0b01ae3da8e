//! The simulated engine: the conformance suite, and that each fault happens when it is asked for and
//! only then.

use ringback_log::conformance;
use ringback_log::sim::{Seen, Sim, SimOptions};

#[test]
fn conforms() {
    let sim = Sim::new(SimOptions::default()).unwrap();
    conformance::all(|topics| sim.open(topics));
    let Seen {
        revoked, exposed, ..
    } = sim.seen();
    // Members of the suite come and go, and some commit nothing.
    let unasked = Seen {
        revoked,
        exposed,
        ..Seen::default()
    };
    assert_eq!(sim.seen(), unasked, "nothing fails that was not asked to");
}
