//! What requests show of endpoints: who fails several in a row gets none for a while.
//!
//! Only where another could answer instead, and never so many that the rest would be overrun. Not here: asking
//! endpoints how they are (`health.rs`).

use std::sync::atomic::Ordering;

use http::StatusCode;
use tracing::{info, warn};

use super::{Endpoint, Upstream, lock};

impl Upstream {
    /// An answer came from there.
    pub(super) fn answered(&self, endpoint: usize, status: StatusCode) {
        // With one endpoint there is nothing to choose.
        if self.endpoints().len() == 1 {
            return;
        }
        // What proxies and overloaded applications say. A 500 says that a request was bad, not the endpoint.
        if matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) {
            self.failed(endpoint);
        } else if let Some(endpoint) = self.endpoints().get(endpoint) {
            endpoint.standing.succeeded();
        }
    }

    /// No answer came from there, or one that says as much.
    #[cold]
    pub(super) fn failed(&self, index: usize) {
        let Some(endpoint) = self.endpoints().get(index) else {
            return;
        };
        endpoint.failures.fetch_add(1, Ordering::Relaxed);
        let rules = &self.settings.outliers;
        if self.endpoints().len() == 1 || rules.failures == 0 {
            return;
        }
        if endpoint.standing.failed() < rules.failures {
            return;
        }
        // One at a time, so that no two workers eject one too many between them.
        let _one = lock(&self.ejecting);
        let out = self.endpoints().iter().filter(|endpoint| !endpoint.is_in()).count();
        let allowed = self.endpoints().len() * rules.max_ejected as usize / 100;
        if endpoint.is_in() && out < allowed && endpoint.standing.eject(rules.eject_for) {
            warn!(
                upstream = self.name(),
                endpoint = endpoint.name(),
                "an endpoint failed {} requests in a row and gets none for {:?}",
                rules.failures,
                rules.eject_for
            );
        }
    }

    #[cold]
    pub(super) fn note_back(&self, endpoint: &Endpoint) {
        self.all_out.store(false, Ordering::Relaxed);
        info!(
            upstream = self.name(),
            endpoint = endpoint.name(),
            "an ejected endpoint gets requests again"
        );
    }

    /// Said once, until one is in again.
    #[cold]
    pub(super) fn note_all_out(&self) {
        if !self.all_out.swap(true, Ordering::Relaxed) {
            warn!(
                upstream = self.name(),
                "no endpoint is healthy: requests are sent to any, and may fail"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    const THREE: &str = "['http://10.0.0.1', 'http://10.0.0.2', 'http://10.0.0.3']";

    fn fail(upstream: &Upstream, endpoint: usize, times: usize) {
        for _ in 0..times {
            upstream.failed(endpoint);
        }
    }

    fn ins(upstream: &Upstream) -> Vec<bool> {
        upstream.endpoints().iter().map(|endpoint| endpoint.is_in()).collect()
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_in_between_forgives() {
        let upstream = testing::upstream(THREE);
        fail(&upstream, 0, 4);
        upstream.answered(0, StatusCode::OK);
        fail(&upstream, 0, 4);
        assert_eq!(ins(&upstream), [true; 3]);
        upstream.answered(0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ins(&upstream), [false, true, true]);
    }

    #[test]
    fn errors_of_the_application_are_no_failures_of_the_endpoint() {
        let upstream = testing::upstream(THREE);
        for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::NOT_FOUND] {
            for _ in 0..20 {
                upstream.answered(0, status);
            }
        }
        assert_eq!(ins(&upstream), [true; 3]);
    }

    #[test]
    fn no_more_are_ejected_than_allowed() {
        let upstream = testing::upstream(THREE);
        for endpoint in 0..3 {
            fail(&upstream, endpoint, 20);
        }
        assert_eq!(ins(&upstream), [false, true, true], "half of three is one");
        let upstream = testing::upstream(&format!("{THREE}\noutliers = {{ max_ejected = 0 }}"));
        fail(&upstream, 0, 20);
        assert_eq!(ins(&upstream), [true; 3]);
    }

    #[test]
    fn the_only_endpoint_is_never_ejected() {
        let upstream = testing::upstream("'http://10.0.0.1'");
        fail(&upstream, 0, 20);
        assert_eq!(ins(&upstream), [true]);
        assert_eq!(upstream.endpoints()[0].failures(), 20);
    }
}
