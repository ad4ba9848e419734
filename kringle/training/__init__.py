"""Fill-in-the-middle, batches as a pure function of the step, optimizer, and a trainer that resumes exactly."""
