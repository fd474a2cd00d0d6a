-- When what a mail says is of no use any more, such as a link that has expired; null: never. It is not sent then.
ALTER TABLE mail_outbox ADD COLUMN useless_at timestamptz;
