// All tests in one process, so that they share the servers of `scenarios.mjs`.

import "./behaviour/sign-up.mjs";
import "./behaviour/sign-in.mjs";
import "./behaviour/verify-email.mjs";
import "./behaviour/session.mjs";
import "./behaviour/reset-password.mjs";
import "./behaviour/change-password.mjs";
import "./behaviour/change-email.mjs";
import "./behaviour/update-user.mjs";
import "./behaviour/delete-user.mjs";
import "./behaviour/accounts.mjs";
import "./behaviour/social.mjs";
import "./behaviour/bearer.mjs";
import "./behaviour/multi-session.mjs";
import "./behaviour/rate-limit.mjs";
import "./behaviour/origin.mjs";
import "./behaviour/requests.mjs";
import "./behaviour/additions.mjs";
