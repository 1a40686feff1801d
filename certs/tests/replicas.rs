//! Replicas over years: whoever calls one of them trusts its certificate.

#[path = "replicas/world.rs"]
mod world;

use certs::{Change, Policy};
use proptest::prelude::*;
use time::Duration;

use crate::world::{Fault, World};

fn policy() -> Policy {
    Policy::new(Duration::days(365), Duration::days(7), Duration::hours(1)).unwrap()
}

#[test]
fn years_pass_without_a_failed_call() {
    let mut world = World::new(1, [policy(); 3]);
    world.run(Duration::days(4 * 365));
    let count =
        |what: fn(&Change) -> bool| world.changes.iter().filter(|change| what(change)).count();
    assert_eq!(count(|change| matches!(change, Change::Made(_))), 1);
    // A CA signs from two thirds of the former one's life on, and an hour: every 243 days.
    assert_eq!(count(|change| matches!(change, Change::Next(_))), 5);
    assert_eq!(count(|change| matches!(change, Change::Promoted(_))), 5);
    assert_eq!(count(|change| matches!(change, Change::Ended(_))), 5);
    // Nothing is done twice, and nothing without need.
    assert_eq!(world.changes.len(), 16);
    assert_eq!(world.writes, 16);
    assert_eq!(world.publications, 1 + 5 + 5);
    // Every 4 days and 16 hours, and once more for each CA.
    assert!((3 * 313..3 * 330).contains(&world.certificates), "{}", world.certificates);
    assert!(world.calls > 1_000, "{}", world.calls);
}

#[test]
fn of_all_that_start_at_once_one_makes_the_ca() {
    for seed in 0..200 {
        let mut world = World::new(seed, [policy(); 3]);
        world.run(Duration::MINUTE);
        assert!(matches!(world.changes[..], [Change::Made(_)]), "seed {seed}: {world:?}");
        assert_eq!(world.writes, 1, "seed {seed}");
    }
}

#[test]
fn shortest_lives_work_as_well() {
    let policy = Policy::new(Duration::seconds(60), Duration::seconds(15), Duration::seconds(5));
    let mut world = World::new(2, [policy.unwrap(); 3]);
    world.run(Duration::minutes(20));
    assert!(
        world.changes.iter().filter(|change| matches!(change, Change::Promoted(_))).count() >= 20
    );
    assert!(world.calls > 1_000, "{}", world.calls);
}

#[test]
fn replicas_that_disagree_on_lifetimes_dont_fight() {
    let other = |ca, certificate, overlap| {
        Policy::new(Duration::days(ca), Duration::days(certificate), Duration::hours(overlap))
            .unwrap()
    };
    let mut world = World::new(3, [policy(), other(90, 30, 24), other(30, 1, 1)]);
    world.run(Duration::days(365));
    // Each CA lives as long as its maker wants it to: in the worst case all are made by the third.
    let rotations = 365 / 20;
    assert!(world.writes <= 3 * rotations, "{} writes", world.writes);
    assert!(world.publications <= 2 * rotations, "{} publications", world.publications);
}

fn faults() -> impl Strategy<Value = Vec<(i64, Fault)>> {
    let fault = prop_oneof![
        Just(Fault::DeleteSecret),
        Just(Fault::GarbleSecret),
        Just(Fault::RestoreOldSecret),
        Just(Fault::WipeBundle),
        Just(Fault::DeleteConfiguration),
        Just(Fault::ApplyConfiguration),
        (0..3usize).prop_map(Fault::Restart),
        // Hours.
        (1..500i64).prop_map(Fault::Outage),
        Just(Fault::LoseAnswers),
    ];
    // Some follow one another at once, in seconds, others after weeks.
    let gap = prop_oneof![0..5i64, 0..(40 * 86_400i64)];
    prop::collection::vec((gap, fault), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_fault_fails_calls_for_longer_than_it_lasts(seed: u64, faults in faults()) {
        let mut world = World::new(seed, [policy(); 3]);
        world.run(Duration::hours(2));
        for (gap, fault) in faults {
            world.run(Duration::seconds(gap));
            world.strike(fault);
        }
        world.run(Duration::days(30));
        prop_assert!(world.healthy(), "not healed: {world:?}");
    }
}
