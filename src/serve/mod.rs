//! HTTP for programs and the local socket for the command line.
