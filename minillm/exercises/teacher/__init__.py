"""What a teacher needs: submissions read safely, a report of a class, assignments, an exam."""
