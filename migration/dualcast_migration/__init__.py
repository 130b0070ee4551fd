"""Migration control plane: stages, cohorts and the policy that decides what each session is due."""
