"""The service's processes: forked, watched, replaced and ended.

The supervisor is one thread without an event loop. It opens the listeners, forks a hub process
and the workers, and then waits for signals, messages of its children, and the next restart that is
due. It opens no store and touches no event.
"""
