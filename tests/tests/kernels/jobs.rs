//! What is tested in a guest.

/// A column of the table: tests of one executable.
pub struct Job {
    /// At most twelve letters.
    pub title: &'static str,
    /// The executable: a file of tests/tests.
    pub executable: &'static str,
    /// Which of its tests: all whose names contain one of these.
    pub tests: &'static [&'static str],
    /// How much of their work: an emulated processor is some twenty times slower than a real one.
    pub percent: f32,
}

/// In the order in which they run.
pub const JOBS: [Job; 10] = [
    Job {
        title: "as root",
        executable: "loader",
        tests: &["attach::the_program_stays", "attach::directions"],
        percent: 100.0,
    },
    Job {
        title: "two caps",
        executable: "loader",
        tests: &[
            "privileges::the_confinement_is_one",
            "privileges::two_capabilities_are_enough",
            "privileges::a_capability_that_is_missing",
        ],
        percent: 100.0,
    },
    Job {
        title: "each kind",
        executable: "loader",
        tests: &["privileges::every_kind_of_rule_by_itself"],
        percent: 100.0,
    },
    // 1, 256 and 4,096 rules.
    Job {
        title: "many rules",
        executable: "loader",
        tests: &["verifier::it_is_far", "privileges::as_many_rules"],
        percent: 100.0,
    },
    Job {
        title: "memlock",
        executable: "loader",
        tests: &["verifier::locked_memory"],
        percent: 100.0,
    },
    Job {
        title: "model",
        executable: "datapath",
        tests: &["funnel_nat_unfunnel_equals_the_model", "there_nat_and_back_equals_the_model"],
        percent: 2.0,
    },
    Job { title: "NAT", executable: "traffic", tests: &["nat::"], percent: 1.0 },
    Job {
        title: "MTU",
        executable: "traffic",
        tests: &["too_big::", "bulk::tcp_in_tcp_over"],
        percent: 0.1,
    },
    Job { title: "show", executable: "loader", tests: &["show::"], percent: 100.0 },
    Job { title: "clean", executable: "loader", tests: &["clean::"], percent: 100.0 },
];

impl Job {
    /// The command line in the guest.
    pub fn command(&self) -> String {
        // There is one processor, and a test that waits for another one may wait too long.
        format!(
            "SFUNNEL_TEST_PERCENT={} /tests/{} --test-threads=1 --nocapture {}",
            self.percent,
            self.executable,
            self.tests.join(" ")
        )
    }
}
