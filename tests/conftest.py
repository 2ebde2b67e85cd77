"Tests of Ctrl-C need it to work, also when the tests themselves were started in the background, where it is ignored."
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
