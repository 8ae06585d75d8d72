"""The `process` sandbox: namespaces, cgroups, seccomp and Landlock around an ordinary process of this host."""
