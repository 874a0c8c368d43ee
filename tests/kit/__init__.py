"""What the tests share: real QEMUs, real guests, an own QMP client, and checks of what a test leaves behind."""
