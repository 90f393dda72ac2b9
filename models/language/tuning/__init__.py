"""What a training changes of a trained language model, and how what it costs is known."""
