// All tests in one process, so that they share the servers of `scenarios.mjs`.

import "./behaviour/sign-up.mjs";
import "./behaviour/sign-in.mjs";
import "./behaviour/verify-email.mjs";
import "./behaviour/session.mjs";
import "./behaviour/reset-password.mjs";
