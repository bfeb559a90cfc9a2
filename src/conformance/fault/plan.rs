use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Call, Fault, Faults};

/// Fails the calls it was told to, and remembers all calls.
#[derive(Debug, Default)]
pub struct ScriptedFaults {
    of_call: HashMap<(Call, usize), Fault>,
    of_all: HashMap<usize, Fault>,
    seen: Mutex<Vec<Call>>,
}

impl ScriptedFaults {
    /// A plan without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `fault` happens to the `k`-th of all calls, counted from 0.
    #[must_use]
    pub fn nth(mut self, k: usize, fault: Fault) -> Self {
        self.of_all.insert(k, fault);
        self
    }

    /// `fault` happens to the `k`-th of the calls of this method, counted from 0.
    #[must_use]
    pub fn on(mut self, call: Call, k: usize, fault: Fault) -> Self {
        self.of_call.insert((call, k), fault);
        self
    }

    /// The calls that have begun so far, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.seen().clone()
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Call>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults for ScriptedFaults {
    fn next(&self, call: Call) -> Fault {
        let mut seen = self.seen();
        let k = seen.iter().filter(|earlier| **earlier == call).count();
        let fault = self.of_call.get(&(call, k)).or_else(|| self.of_all.get(&seen.len()));
        seen.push(call);
        fault.copied().unwrap_or(Fault::None)
    }
}

/// Fails calls at random; the same seed and the same order of calls give the same faults.
#[derive(Debug)]
pub struct SeededFaults {
    probability: f64,
    kinds: Vec<Fault>,
    dice: Mutex<Dice>,
}

#[derive(Debug)]
struct Dice {
    random: SplitMix64,
    injected: u64,
}

impl SeededFaults {
    /// Faults with this `probability` (0 to 1), of all kinds but those that hang: who calls needs
    /// a timeout for these.
    #[must_use]
    pub fn new(seed: u64, probability: f64) -> Self {
        Self {
            probability,
            kinds: vec![
                Fault::FailBefore,
                Fault::FailAfter,
                Fault::LateApply(Duration::from_millis(20)),
                Fault::Delay(Duration::from_millis(5)),
            ],
            dice: Mutex::new(Dice {
                random: SplitMix64(seed),
                injected: 0,
            }),
        }
    }

    /// Faults of these kinds only, each as likely as it is listed; none listed is no fault.
    #[must_use]
    pub fn of(mut self, kinds: impl Into<Vec<Fault>>) -> Self {
        self.kinds = kinds.into();
        self
    }

    /// How many calls had a fault so far.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.dice().injected
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults for SeededFaults {
    fn next(&self, _: Call) -> Fault {
        let mut dice = self.dice();
        // Both are drawn always, so that the n-th call's fault does not hang on the earlier ones'.
        let (chance, pick) = (dice.random.unit(), dice.random.next());
        if chance >= self.probability || self.kinds.is_empty() {
            return Fault::None;
        }
        dice.injected += 1;
        let pick = usize::try_from(pick % self.kinds.len() as u64).unwrap_or(0);
        self.kinds[pick]
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In 0..1, of 32 bits.
    fn unit(&mut self) -> f64 {
        let high = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = SplitMix64(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn a_seed_is_a_history() {
        let history = |seed, probability| {
            let plan = SeededFaults::new(seed, probability);
            let faults: Vec<Fault> = (0..1000).map(|_| plan.next(Call::Load)).collect();
            (faults, plan.injected())
        };
        assert_eq!(history(7, 0.3), history(7, 0.3));
        assert_ne!(history(7, 0.3), history(8, 0.3));
        let (faults, injected) = history(7, 0.3);
        assert!((230..370).contains(&injected), "{injected}");
        assert_eq!(
            faults.iter().filter(|fault| **fault != Fault::None).count() as u64,
            injected
        );
        assert_eq!(history(7, 0.0).1, 0);
        assert_eq!(history(7, 1.0).1, 1000);
    }

    #[test]
    fn a_script_counts_from_0() {
        let plan = ScriptedFaults::new()
            .nth(2, Fault::Hang)
            .on(Call::Load, 1, Fault::FailBefore);
        let calls = [Call::Load, Call::Commit, Call::Commit, Call::Load, Call::Load];
        let faults: Vec<Fault> = calls.into_iter().map(|call| plan.next(call)).collect();
        assert_eq!(
            faults,
            [Fault::None, Fault::None, Fault::Hang, Fault::FailBefore, Fault::None]
        );
        assert_eq!(plan.calls(), calls);
    }
}
