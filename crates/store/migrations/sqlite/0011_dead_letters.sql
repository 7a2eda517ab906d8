-- How long the oldest dead letter of a sink waits for somebody is asked four times a minute.
CREATE INDEX deliveries_dead_sink ON deliveries (sink, ended_at_ms) WHERE state = 'dead';
