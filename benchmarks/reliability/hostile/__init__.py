"""Files that are made to harm who decodes them, for tests and for the fuzzer."""
