"""What measures the toolkit and is no part of it: step times, preparation, storage, clusters, summaries."""
