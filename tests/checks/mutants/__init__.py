"""Single faults that are put into correct answers, to prove that the conformance suite finds each of them."""
