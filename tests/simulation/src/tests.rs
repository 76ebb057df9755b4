use super::*;

#[test]
fn the_same_seed_does_the_same_again_and_another_something_else() {
    let simulator = Simulator::default();
    for seed in 0..20 {
        let (first, again) = (simulator.run(seed, false), simulator.run(seed, true));
        assert_eq!(first.hash, again.hash, "seed {seed}");
        assert_eq!(first.coverage, again.coverage, "seed {seed}");
        assert!(first.log.is_empty() && !again.log.is_empty());
        assert_ne!(first.hash, simulator.run(seed + 20, false).hash);
    }
}
