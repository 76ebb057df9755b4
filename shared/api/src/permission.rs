//! Permissions: what each role may do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Role of a token: what its bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Admin,
    Operator,
    Viewer,
    Producer,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Producer => "producer",
        })
    }
}

/// Permission that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Reads whose token it is, what can be registered, and what became of an attestation: for every token. The
    /// response depends on whether the role may also [`Read`](Self::Read).
    Follow,
    /// Reads everything else.
    Read,
    /// Changes registrations and attachments.
    Configure,
    /// Redelivers and cancels deliveries, runs jobs, pauses and resumes registrations.
    Operate,
    /// Pushes attestations and materials.
    Push,
    /// Pushes as [`Push`](Self::Push), with the intake token in the path: the gateway asks no authorizer.
    Forward,
    /// Reads the API's description: for everyone, without a token.
    Open,
    /// Gets a token for what the body holds: for everyone, without a token in the header.
    Exchange,
    /// Changes tokens.
    Administer,
}

impl Action {
    const ALL: [Self; 6] = [
        Self::Follow,
        Self::Read,
        Self::Configure,
        Self::Operate,
        Self::Push,
        Self::Administer,
    ];

    /// Reports whether the gateway lets everyone through.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Forward | Self::Open | Self::Exchange)
    }
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Viewer, Self::Producer];

    pub const fn may(self, action: Action) -> bool {
        match self {
            Self::Admin => true,
            Self::Operator => !matches!(action, Action::Administer),
            Self::Viewer => matches!(action, Action::Follow | Action::Read),
            // A build's token: it gets into many hands, and needs no more.
            Self::Producer => matches!(action, Action::Follow | Action::Push),
        }
    }

    /// Reports whether tokens with the role can be restricted to workflows. What the others do is about no workflow.
    pub fn can_be_restricted(self) -> bool {
        matches!(self, Self::Viewer | Self::Producer)
    }

    /// Reports whether the role may do all that the other may.
    pub fn covers(self, other: Self) -> bool {
        Action::ALL
            .iter()
            .all(|action| self.may(*action) || !other.may(*action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_it_is_for() {
        for (action, who) in [
            (Action::Follow, &Role::ALL[..]),
            (Action::Read, &[Role::Admin, Role::Operator, Role::Viewer]),
            (Action::Configure, &[Role::Admin, Role::Operator]),
            (Action::Operate, &[Role::Admin, Role::Operator]),
            (Action::Push, &[Role::Admin, Role::Operator, Role::Producer]),
            (Action::Administer, &[Role::Admin]),
        ] {
            let may = Role::ALL.into_iter().filter(|role| role.may(action));
            assert_eq!(may.collect::<Vec<_>>(), who, "{action:?}");
        }
    }

    #[test]
    fn a_role_covers_those_that_may_no_more() {
        let below = |role: Role| {
            let all = Role::ALL.into_iter();
            all.filter(|other| role.covers(*other)).collect::<Vec<_>>()
        };
        assert_eq!(below(Role::Admin), Role::ALL);
        assert_eq!(below(Role::Operator), Role::ALL[1..]);
        assert_eq!(below(Role::Viewer), [Role::Viewer]);
        assert_eq!(below(Role::Producer), [Role::Producer]);
    }
}
