"""Days in a row with a simulated subject: what each way to a day's decoder is worth."""
