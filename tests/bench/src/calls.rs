//! Calls that were made to the cloud, and what is counted of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A call, as the cloud saw it.
#[derive(Debug, Clone)]
pub struct Call {
    pub service: &'static str,
    pub operation: String,
    pub connection: u64,
    /// The service had not been called over the connection before.
    pub is_first: bool,
    pub begun: Instant,
    pub ended: Instant,
}

/// Calls of one measurement, and the connections that were opened meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    pub calls: Vec<Call>,
    pub opened: BTreeSet<u64>,
}

/// Operations that change the table.
const WRITES: [&str; 4] = ["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"];

impl Calls {
    /// Returns the length of the longest chain of calls, each of which began after the one before had ended.
    pub fn depth(&self) -> usize {
        let mut calls: Vec<&Call> = self.calls.iter().collect();
        calls.sort_by_key(|call| call.ended);
        let mut last = None;
        let mut depth = 0;
        for call in calls {
            if last.is_none_or(|last| call.begun >= last) {
                last = Some(call.ended);
                depth += 1;
            }
        }
        depth
    }

    /// Returns the number of new connections. On AWS each service has a host of its own: a connection over which two of
    /// them are called counts for both.
    pub fn connections(&self) -> usize {
        let firsts = self.calls.iter().filter(|call| call.is_first).count();
        let used: BTreeSet<u64> = self.calls.iter().map(|call| call.connection).collect();
        firsts + self.opened.difference(&used).count()
    }

    pub fn writes(&self) -> usize {
        let writes = self.calls.iter();
        writes
            .filter(|call| WRITES.contains(&call.operation.as_str()))
            .count()
    }

    /// Names the calls step by step: each step began after a call of the one before had ended.
    pub fn steps(&self) -> String {
        let mut calls: Vec<&Call> = self.calls.iter().collect();
        calls.sort_by_key(|call| call.begun);
        let mut steps: Vec<BTreeMap<&str, usize>> = Vec::new();
        let mut first_end = None;
        for call in calls {
            if first_end.is_none_or(|end| call.begun >= end) {
                steps.push(BTreeMap::new());
                first_end = Some(call.ended);
            }
            first_end = first_end.min(Some(call.ended));
            if let Some(step) = steps.last_mut() {
                *step.entry(&call.operation).or_default() += 1;
            }
        }
        let one = |(operation, count): (&str, usize)| match count {
            1 => operation.to_owned(),
            _ => format!("{count} {operation}"),
        };
        let steps = steps.into_iter();
        let steps = steps.map(|step| step.into_iter().map(one).collect::<Vec<_>>().join(", "));
        steps.collect::<Vec<_>>().join(" → ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Calls over these connections, each from one millisecond to another.
    fn calls(all: &[(&'static str, u64, [u64; 2])]) -> Calls {
        let zero = Instant::now();
        let mut known = BTreeSet::new();
        let calls = all
            .iter()
            .map(|(service, connection, [begun, ended])| Call {
                service,
                operation: "PutItem".into(),
                connection: *connection,
                is_first: known.insert((*service, *connection)),
                begun: zero + Duration::from_millis(*begun),
                ended: zero + Duration::from_millis(*ended),
            });
        Calls {
            calls: calls.collect(),
            opened: all.iter().map(|(_, connection, _)| *connection).collect(),
        }
    }

    #[test]
    fn depth_is_the_longest_chain_and_not_the_number_of_calls() {
        let depth = |all: &[[u64; 2]]| {
            let all: Vec<_> = all.iter().map(|times| ("dynamodb", 1, *times)).collect();
            calls(&all).depth()
        };
        assert_eq!(depth(&[]), 0);
        assert_eq!(depth(&[[0, 5], [0, 5], [1, 9]]), 1);
        assert_eq!(depth(&[[0, 5], [5, 9], [9, 12]]), 3);
        // A long one beside three short ones.
        assert_eq!(depth(&[[0, 30], [0, 5], [6, 9], [10, 12]]), 3);
        let all = [("s3", 1, [0, 5]), ("s3", 2, [1, 6]), ("s3", 1, [7, 9])];
        assert_eq!(calls(&all).steps(), "2 PutItem → PutItem");
        // Two that begin before the first has ended lengthen nothing.
        assert_eq!(depth(&[[0, 10], [9, 12], [8, 13], [13, 14]]), 2);
    }

    #[test]
    fn a_connection_counts_for_each_service_and_once_without_a_call() {
        let mut counted = calls(&[
            ("dynamodb", 1, [0, 1]),
            ("dynamodb", 1, [1, 2]),
            ("sqs", 1, [2, 3]),
            ("dynamodb", 2, [0, 1]),
        ]);
        assert_eq!(counted.connections(), 3);
        counted.opened.insert(3);
        assert_eq!(counted.connections(), 4);
        assert_eq!(counted.writes(), 4);
    }
}
