//! `oauth_flows`: what is remembered while a browser is at a provider.
