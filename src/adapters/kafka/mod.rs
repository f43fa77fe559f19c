//! The queues over Apache Kafka, and the mark outside the store.
