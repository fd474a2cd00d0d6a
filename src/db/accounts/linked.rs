//! `accounts`: those at providers, by issuer and subject.
