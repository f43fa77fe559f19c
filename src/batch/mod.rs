//! SmsBatchService: creating batches and the commands an operator gives.
