"""What reads text of others, as functions of bytes that assert what must hold; for a fuzzer and for tests/hostile."""
