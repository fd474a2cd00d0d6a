-- Mails on their way. A row is written in the transaction of what it announces and sent by a worker of any gateway.

CREATE TABLE mail_outbox (
    id uuid PRIMARY KEY,
    -- Which message it is, as its templates are named: 'verify_email'.
    message text NOT NULL,
    recipient text NOT NULL,
    subject text NOT NULL,
    -- Both hold links that are secrets: erased as soon as the mail is sent or given up.
    body_text text,
    body_html text,
    created_at timestamptz NOT NULL,
    -- When to try next. While a worker has the mail in hand: when its claim lapses and others may take it.
    due_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    sent_at timestamptz,
    failed_at timestamptz,
    -- Why the last attempt failed, in the server's words.
    last_error text,
    CONSTRAINT mail_outbox_ends_once CHECK (sent_at IS NULL OR failed_at IS NULL),
    CONSTRAINT mail_outbox_keeps_no_secret CHECK (
        (sent_at IS NULL AND failed_at IS NULL) = (body_text IS NOT NULL)
        AND (body_text IS NULL) = (body_html IS NULL)
    )
);

-- What is left to send, in the order in which it is due; stays small.
CREATE INDEX mail_outbox_due ON mail_outbox (due_at) WHERE sent_at IS NULL AND failed_at IS NULL;
-- For removing what ended long ago.
CREATE INDEX mail_outbox_ended ON mail_outbox ((COALESCE(sent_at, failed_at)))
    WHERE sent_at IS NOT NULL OR failed_at IS NOT NULL;
