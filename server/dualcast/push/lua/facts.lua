-- What there is to say about the queue.
return facts(clock_ms())
