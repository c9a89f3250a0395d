"""Intake of spikes: pull, read, admit; is the bin whole, is the source sound?"""
