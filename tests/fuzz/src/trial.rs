//! The test of a target: its seeds, and mutations of them for some seconds.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::mutate::{Mutator, Random};
use crate::{Target, seeds};

/// Time for the mutations of each target. They are the same in each run, as far as this reaches.
const SECONDS: u64 = 3;

/// Larger seeds are read and not mutated.
const MUTATED_BYTES: usize = 64 * 1024;

pub fn run(name: &str) {
    let target = Target::named(name).expect("each test is of a target");
    let seeds = seeds::of(target);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    target.warm();
    for (path, seed) in &seeds {
        check(target, seed, &path.display().to_string());
    }
    let mut pool: Vec<Vec<u8>> = seeds.into_iter().map(|(_, seed)| seed).collect();
    pool.retain(|seed| seed.len() <= MUTATED_BYTES);
    let mut mutator = Mutator {
        random: Random(name.len() as u64),
        words: target.words,
        longest: target.longest,
    };
    let (until, mut tried) = (Instant::now() + Duration::from_secs(SECONDS), 0_u64);
    while Instant::now() < until {
        let seed = mutator.random.of(&pool).clone();
        let other = mutator.random.of(&pool).clone();
        let input = mutator.mutate(seed, &other);
        check(target, &input, "a mutation");
        tried += 1;
    }
    println!("{name}: {tried} mutations");
}

/// Keeps the input that shows a fault.
fn check(target: &Target, input: &[u8], what: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.check(input))) else {
        return;
    };
    let name = attestation::Digest::of(input).hex();
    let path = std::env::temp_dir().join(format!("{}-{}", target.name, &name[..16]));
    std::fs::write(&path, input).expect("a folder for temporary files");
    let corpus = seeds::corpus(target);
    eprintln!(
        "{what} shows a fault; it is in {}, and belongs into {}",
        path.display(),
        corpus.display()
    );
    resume_unwind(panic);
}
