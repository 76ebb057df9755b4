//! Fuzz targets: everything that reads bytes from outside, each with the properties that hold for whatever it reads.
//!
//! [`TARGETS`] is the list. The tests of this crate try each target on its seeds and, for some seconds, on mutations of
//! them; `make fuzz` has libFuzzer look for inputs that reach new code (`bin/fuzz.rs`). Both judge an input by
//! [`Target::check`]. An input that showed a fault stays in `corpus`, in the folder of its target.

mod apply;
mod attestation;
mod destination;
mod event;
mod jwt;
pub mod mutate;
pub mod seeds;
mod setting;
mod signature;
mod text;
#[cfg(test)]
mod trial;

use std::time::Duration;

use cpu_time::ThreadTime;
/// Something that reads bytes from outside.
pub struct Target {
    pub name: &'static str,
    /// Reads an input, and panics unless the target's properties hold.
    run: fn(&[u8]),
    /// Files and folders of this repository with inputs, beside those of its corpus.
    seeds: &'static [&'static str],
    /// Folders of `SAMPLES_DIR` with inputs.
    samples: &'static [&'static str],
    /// Words that mutations put in.
    pub words: &'static [&'static str],
    /// Maximum size of a mutation.
    pub longest: usize,
    /// Bytes of memory that every input may take at a time.
    memory: usize,
    /// Those that each byte of it may take beside them.
    memory_per_byte: usize,
    /// Time that an input may take, beside [`TIME_PER_KILOBYTE`].
    time: Duration,
}

/// Time that an input may take for each kilobyte: several times what is usual in a build without optimization.
const TIME_PER_KILOBYTE: Duration = Duration::from_millis(5);

/// Measurements of an input that takes too long: on a busy machine one alone means little.
const TRIES: usize = 5;

macro_rules! targets {
    ($($name:ident: $run:path, $target:expr;)+) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $run, ..$target }),+];

        #[cfg(test)]
        mod tests {
            $(#[test]
            fn $name() {
                super::trial::run(stringify!($name));
            })+
        }
    };
}

/// A target as most are.
const USUAL: Target = Target {
    name: "",
    run: |_| {},
    seeds: &[],
    samples: &[],
    words: &[],
    longest: 4096,
    memory: 1024 * 1024,
    memory_per_byte: 256,
    time: Duration::from_millis(200),
};

targets! {
    envelope: attestation::envelope, Target {
        longest: 32 * 1024,
        samples: &["attestations", "bundles", "malformed"],
        words: attestation::WORDS,
        ..USUAL
    };
    statement: attestation::statement, Target {
        seeds: &["shared/integrations/tests/files/statement.json", "shared/verify/tests/files/payload.json"],
        words: attestation::WORDS,
        ..USUAL
    };
    forwarded: attestation::forwarded, Target {
        seeds: &["shared/integrations/tests/files/webhook-attestation.json"],
        words: attestation::FORWARDED_WORDS,
        ..USUAL
    };
    verdict: signature::verdict, Target {
        seeds: &["shared/verify/tests/files/signed"],
        samples: &["bundles"],
        words: signature::WORDS,
        longest: 32 * 1024,
        ..USUAL
    };
    policy: signature::policy, Target {
        seeds: &["shared/verify/tests/files/signed"],
        words: signature::POLICY_WORDS,
        longest: 16 * 1024,
        ..USUAL
    };
    jwt: jwt::jwt, Target { words: jwt::WORDS, longest: 17 * 1024, ..USUAL };
    retry_after: destination::retry_after, Target { words: destination::RETRY_WORDS, longest: 256, ..USUAL };
    url: destination::url, Target { words: destination::WORDS, longest: 1024, ..USUAL };
    address: destination::address, Target { words: destination::LIST_WORDS, longest: 256, ..USUAL };
    inputs: setting::inputs, Target {
        words: setting::INPUT_WORDS,
        memory_per_byte: 1024,
        time: Duration::from_millis(500),
        ..USUAL
    };
    template: setting::template, Target {
        words: setting::TEMPLATE_WORDS,
        // What its steps are enough for, however short it is.
        memory: 64 * 1024 * 1024,
        memory_per_byte: 4096,
        time: Duration::from_secs(1),
        ..USUAL
    };
    filter: setting::filter, Target { words: setting::FILTER_WORDS, longest: 1100, ..USUAL };
    apply: apply::apply, Target { words: apply::WORDS, memory_per_byte: 2048, time: Duration::from_millis(300), ..USUAL };
    message: event::message, Target {
        seeds: &["events/deliver", "events/fetch-materials", "events/reconciler"],
        words: event::MESSAGE_WORDS,
        ..USUAL
    };
    request: event::request, Target {
        seeds: &[
            "events/attachments", "events/attestations", "events/authorizer", "events/deliveries",
            "events/organization", "events/registrations",
        ],
        words: event::WORDS,
        // The description of the API is an answer too.
        memory: 16 * 1024 * 1024,
        memory_per_byte: 1024,
        time: Duration::from_secs(1),
        ..USUAL
    };
    text: text::text, Target { words: text::WORDS, longest: 1024, ..USUAL };
    answer: text::answer, Target {
        words: text::ANSWER_WORDS,
        memory_per_byte: 4096,
        time: Duration::from_millis(500),
        ..USUAL
    };
}

impl Target {
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Reads the seeds, so that what is made once is made before anything is measured.
    pub fn warm(&self) {
        for (_, seed) in seeds::of(self) {
            (self.run)(&seed);
        }
    }

    /// Panics unless the target's properties hold for this input, and it took no more memory and time than its size allows.
    pub fn check(&self, input: &[u8]) {
        let time =
            self.time + TIME_PER_KILOBYTE * u32::try_from(input.len() / 1024).unwrap_or(u32::MAX);
        let memory = self.memory + self.memory_per_byte * input.len();
        let mut shortest = Duration::MAX;
        for _ in 0..TRIES {
            // Of this thread alone: whatever else runs on the machine costs nothing.
            let started = ThreadTime::now();
            let measured = allocation_counter::measure(|| (self.run)(input));
            shortest = shortest.min(started.elapsed());
            assert!(
                measured.bytes_max <= memory as u64,
                "{} bytes take {} bytes of memory; at most {memory} are allowed",
                input.len(),
                measured.bytes_max,
            );
            if shortest <= time {
                return;
            }
        }
        panic!(
            "{} bytes take {shortest:?}; at most {time:?} are allowed",
            input.len()
        );
    }
}
