"""A study from its plan to its report: stages and arms, statistics and verdicts, figures and pages."""
